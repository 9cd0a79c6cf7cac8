"""For people who read a change: its report, its pictures, params.yaml's schema. No stage depends on this."""
