"""What every process needs: settings, clients, HTTP, errors, logs, metrics.

It does not know the pipeline.
"""
