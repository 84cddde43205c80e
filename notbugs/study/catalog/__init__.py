"""Every data set and every model of a study, as data. Imports no torch."""
