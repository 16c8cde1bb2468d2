"""The second study: how to train on a subset, and when choosing its samples matters, against networks that are trained out.

`cards/fidelity/protocol.md` says what is compared and what is concluded from what. `networks.py` holds the family of networks, `plan.py` what is
run, `training.py` the trainings, `run.py` runs what is missing and appends rows.
"""
