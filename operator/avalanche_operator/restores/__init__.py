"""RestoreRequest: plan, approval, execution once. ``targets``, ``build`` and ``decide`` are pure; ``reconcile`` writes."""
