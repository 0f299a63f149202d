"""The platform's routes as aliases: a project is a user, a video asset is a recording with its source."""
