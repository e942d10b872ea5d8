"""What the demo claims: every claim is checked as it is printed."""

from __future__ import annotations


class Claims:
    """Prints claims, and remembers those that do not hold."""

    def __init__(self) -> None:
        self.broken: list[str] = []

    def claim(self, text: str, holds: bool) -> None:
        """Print ``text`` and whether it holds."""
        print(f"  {'ok     ' if holds else 'BROKEN '}{text}")
        if not holds:
            self.broken.append(text)
