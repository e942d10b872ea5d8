"""What the demo says of itself: every claim is checked when it is printed."""

from __future__ import annotations


class Claims:
    """Prints claims, and remembers those that do not hold."""

    def __init__(self) -> None:
        self.broken: list[str] = []

    def claim(self, text: str, holds: bool) -> None:
        """Print ``text`` together with whether it is so."""
        print(f"  {'ok     ' if holds else 'BROKEN '}{text}")
        if not holds:
            self.broken.append(text)
