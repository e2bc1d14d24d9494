"""Start the operator: ``python3 -m avalanche_operator``. Everything that it is told comes from the environment."""

from __future__ import annotations

import logging
import os
import sys

import kopf
import structlog

from avalanche_operator.app import Operator, register
from avalanche_operator.settings import namespaces_of

LIVENESS = "http://0.0.0.0:8080/healthz"


def main() -> None:
    """Watch and reconcile until SIGTERM."""
    structlog.configure(
        processors=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.add_log_level,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
    )
    kopf.configure(log_format=kopf.LogFormat.JSON)
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    registry = kopf.OperatorRegistry()
    operators: list[Operator] = []
    register(registry, operators)
    namespaces = namespaces_of(os.environ)
    kopf.run(
        registry=registry,
        standalone=True,
        clusterwide=not namespaces,
        namespaces=namespaces,
        liveness_endpoint=os.environ.get("AVALANCHE_LIVENESS", LIVENESS),
    )


if __name__ == "__main__":
    main()
