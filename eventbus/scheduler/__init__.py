"""Recurring events: rules, what a service declares, and the job that keeps the next tick waiting."""
