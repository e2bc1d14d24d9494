"""What the data plane is asked to do, one module a verb: they bring sources, pipeline, catalog and stores together."""
