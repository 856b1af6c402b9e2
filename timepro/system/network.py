"""Addresses of this machine: which network interface carries one, and from which one another machine is reached."""

from __future__ import annotations

import ipaddress
import socket

import psutil


def is_loopback(host: str) -> bool:
    """Whether nothing outside this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def own_addresses() -> dict[str, str]:
    """This machine's IP addresses and the interface of each."""
    return {
        address.address.partition("%")[0]: name
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family in (socket.AF_INET, socket.AF_INET6)
    }


def interface_of(host: str) -> str:
    """The interface that carries an address of this machine, as gloo and NCCL want it named.

    Raises:
        ValueError: the address is not this machine's.
    """
    if is_loopback(host):
        return "lo"
    found = own_addresses()
    if host not in found:
        raise ValueError(f"{host} is not an address of this machine, which has {', '.join(sorted(found))}")
    return found[host]


def resolve(host: str) -> str:
    """A host's IP address, IPv4 where it has one.

    Raises:
        ValueError: a name that nobody knows.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise ValueError(f"{host} cannot be resolved: {error.strerror}") from error
    return str(sorted(found, key=lambda entry: entry[0] != socket.AF_INET)[0][4][0])


def address_towards(host: str) -> str:
    """The address of this machine that a packet to another one would leave from. Nothing is sent.

    Raises:
        ValueError: there is no way to it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))
        except OSError as error:
            raise ValueError(f"there is no way from this machine to {host}: {error.strerror}") from error
        return str(probe.getsockname()[0])


def listening_socket(host: str, port: int = 0) -> socket.socket:
    """A bound, listening socket on one address only (a store on its own would listen on all of them).

    Raises:
        ValueError: the address cannot be bound, for example a port in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise ValueError(
            f"cannot listen on {host}:{port}: {error.strerror}; give another port, or 0 for a free one"
        ) from error
    sock.listen(1024)
    return sock


def free_port(host: str) -> int:
    """A port that nothing listens on right now."""
    sock = listening_socket(host)
    try:
        return int(sock.getsockname()[1])
    finally:
        sock.close()


def require_free(
    host: str,
    port: int,
    user: str = "a rollout worker",
    remedy: str = "set rollout.base_port to another one, or to 0 for free ones",
) -> None:
    """Refuse a port that is in use, before a minute of start-up is spent on it.

    Args:
        user: what is to listen there.
        remedy: what to do about it.

    Raises:
        ValueError: naming the port and what to change.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(f"port {port} on {host} cannot be used for {user}: {error.strerror}; {remedy}") from error
