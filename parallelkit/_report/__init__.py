"""Writers of a run's report (text, HTML page, notebook card, trace) from its ledger; imported and run only on demand."""
