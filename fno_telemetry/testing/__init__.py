"""For authors of plug-ins: testers of the contracts, an example record and a sink in memory."""
