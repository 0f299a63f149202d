"""Rules by which the files of sibling systems get their places: patterns of paths, tables, and the rules themselves."""
