"""What runs in the pod ``toolbox``: makes the sample data, hashes it, destroys it. Standard library alone."""
