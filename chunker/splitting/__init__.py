"""From Markdown to chunks: cleaning, headings, splitting, token counts."""
