"""Probes of forgetting, a file each, all of one shape: a `rna.settings.Probe` with its numbers and its `states`."""
