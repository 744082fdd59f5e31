"""Stand-in clouds for the demo, the tests and the benchmarks; no part of the deployed package.

They speak the parties' own protocols: signatures are checked, parameters and limits enforced, and they fail when
told to. They are trusted only because others use them: the vendors' own SDKs list the same fleets through them.
"""
