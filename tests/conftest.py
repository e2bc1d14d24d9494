"""What holds for every test: no property has a time limit, for a machine under load is no counterexample."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
