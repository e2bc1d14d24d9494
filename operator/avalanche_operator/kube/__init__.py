"""The one door to the API server, the keyed queue, conditions and events. May import the contract; knows no kind's meaning."""
