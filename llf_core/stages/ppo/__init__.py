"""Proximal policy optimisation: the policy answers, a reward model scores, and better answers become likelier."""
