"""Money for a whole command: what it may spend, and what it has spent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Budget:
    """Money for the whole command."""

    limit_usd: float
    spent_usd: float = 0.0

    def reason(self, usd: float | None) -> str | None:
        """Why to stop, once what this job spent so far passes what is left."""
        if usd is None or self.spent_usd + usd <= self.limit_usd:
            return None
        total = self.spent_usd + usd
        return f"run.max_usd: spent {total:.4f} USD, which passes the limit of {self.limit_usd:g}"
