"""Getting what recipes read: models and data sets of the hub, archives over HTTP; resumable at any
moment, verified, extracted.
"""
