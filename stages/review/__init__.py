"""Tools for those who review a change: report, pictures, schema of params.yaml. No stage depends on them."""
