"""The pages: results to the context of a template and to charts."""
