"""The same jobs as pipelines of Apache Beam; needs the extra `beam`."""
