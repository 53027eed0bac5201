"""The research tables: every ranking on every source task, left out in turn."""
