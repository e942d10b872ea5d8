"""Text, page, card and trace: writers over one ledger. Nothing is computed, or imported, before somebody asks."""
