"""Small stand-ins that behave like the real thing; the same contract suite runs against both."""
