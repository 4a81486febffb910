"""The benchmark harness: frozen features, probes, controls, records."""
