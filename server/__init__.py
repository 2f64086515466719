"""The gateway: REST in Xinference's and OpenAI's shapes, over one fleet."""
