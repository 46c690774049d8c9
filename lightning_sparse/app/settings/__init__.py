"""What a composed configuration may hold, checked before anything is trained, and what its values mean.

It is one table of checks (``groups``), not OmegaConf's structured configs: those know kinds but no ranges, answer in words of
their own, and would be a second list of every setting beside the files of ``conf/``.
"""
