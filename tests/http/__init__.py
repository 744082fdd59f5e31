"""The API over real HTTP, on every target, and the console in browsers."""
