"""Whether a policy's recovery objectives are met, and telling of it once. ``decide`` is pure; ``policy`` reads, then says."""
