"""Records become tables, figures and one HTML page: `python -m rna.report NAME`. Never imports torch."""
