"""A dossier: everything that shows what some runs were, in one archive that anybody can recheck."""
