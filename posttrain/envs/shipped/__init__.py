"""The environments that come with posttrain."""
