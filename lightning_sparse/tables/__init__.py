"""From rows to means, intervals and tables: pandas, and nothing that draws."""
