"""A real Nova, Keystone and vCenter simulator, for the long tests."""
