"""Floor 3: the C extension. It answers the commonest requests on the engine's objects, before Python runs."""
