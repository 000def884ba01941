"""The page of ``sdcorr demo``: two photos, a click in one, its match in the other."""
