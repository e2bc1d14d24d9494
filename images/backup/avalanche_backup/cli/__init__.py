"""The command line without Kubernetes: configuration, commands, tables. It builds the same requests as the operator."""
