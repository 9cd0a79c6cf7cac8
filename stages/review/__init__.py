"""For people who read a change: its report, its pictures, the schema of params.yaml. No stage depends on this folder."""
