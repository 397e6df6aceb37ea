"""OpenAI-compatible servers: a client with retries, and the requests for completions that each kind of server reads."""

from probe.servers.client import Client as Client, Failed as Failed
from probe.servers.config import ServersConfig as ServersConfig, check_urls as check_urls
from probe.servers.dialects import DIALECTS as DIALECTS, Answer as Answer, Ask as Ask, Dialect as Dialect
from probe.servers.pool import Servers as Servers
from probe.servers.server import Server as Server, open_server as open_server
