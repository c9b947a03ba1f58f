"""Environments for rollouts of many turns: tools, games, searches, and the processes they live in.

`pool` is what the rollout sees and `server` what a worker does; `specs` is what `--env` names, `tools` the calls of
tools, `adapters` environments of other libraries.
"""
