"""Answers → grades, after the load; a judge's requests and what its replies mean.

Nothing here runs beside the clock, opens a socket or asks a model: `llmexp.jobs` runs a judge's load.
"""
