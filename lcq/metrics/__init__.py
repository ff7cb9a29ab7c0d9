"""What is measured, for Prometheus (docs/metrics.md): the table of metrics, the instruments, and how they are told."""
