"""Where a fetched URL must never lead, and how somebody might write it."""

ADDRESSES = (
    # loopback, and what a kernel takes for it
    "127.0.0.1", "127.0.0.2", "127.1.2.3", "127.255.255.254", "0.0.0.0", "0.1.2.3", "::1", "::",  # noqa: S104  # nobody listens there
    # private
    "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.255",
    # shared by carriers
    "100.64.0.1", "100.127.255.255",
    # link-local, site-local, unique-local
    "169.254.0.1", "169.254.255.254", "fe80::1", "febf::1", "fec0::1", "feff::1", "fc00::1", "fd12:3456:789a::1",
    # metadata and platform services of clouds
    "169.254.169.254", "169.254.170.2", "169.254.169.253", "100.100.100.200", "192.0.0.192", "168.63.129.16",
    "fd00:ec2::254", "fd20:ce::254", "fd00:c1::a9fe:a9fe",
    # documentation, benchmarks, protocol assignments, relays
    "192.0.2.1", "198.51.100.7", "203.0.113.9", "2001:db8::1", "3fff::1", "198.18.0.1", "198.19.255.255",
    "2001:2::1", "192.0.0.1", "192.0.0.8", "192.0.0.170", "192.88.99.1",
    # multicast, reserved, broadcast
    "224.0.0.1", "239.255.255.255", "ff02::1", "ff05::2", "240.0.0.1", "255.255.255.254", "255.255.255.255",
    "100::1", "4000::1", "5f00::1", "fe00::1",
    # IPv6 with an IPv4 address inside: mapped, compatible, translated, NAT64, 6to4, Teredo, ISATAP
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:8.8.8.8", "::127.0.0.1", "::8.8.8.8",
    "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::808:808", "64:ff9b:1::a00:1",
    "2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:808:808::1", "2001::7f00:1", "2001:0:4136:e378:8000:63bf:80ff:fffe",
    "fe80::5efe:127.0.0.1",
)  # fmt: skip

PUBLIC = (
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "93.184.215.14", "100.63.255.255", "100.128.0.0",
    "126.255.255.255", "128.0.0.0", "168.63.129.15", "168.63.129.17", "169.253.255.255", "169.255.0.0",
    "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.0.3.0", "192.88.98.255", "192.167.255.255", "192.169.0.0",
    "198.17.255.255", "198.20.0.0", "223.255.255.255", "2001:200::1", "2001:4860:4860::8888", "2003::1",
    "2606:4700:4700::1111", "2a00:1450:4001:80e::200e", "3ffe:ffff::1",
)  # fmt: skip

# Ways to write a loopback, private or metadata address that some library has taken for another one;
# PORT stands for the port at which something listens on every address of this machine.
SPELLINGS = (
    # IPv4 as inet_aton reads it: decimal, octal, hexadecimal, short, mixed, with too much
    "http://2130706433:PORT/", "http://017700000001:PORT/", "http://0x7f000001:PORT/", "http://0x7F.1:PORT/",
    "http://0177.0.0.1:PORT/", "http://0177.0.0.01:PORT/", "http://127.1:PORT/", "http://127.0.1:PORT/",
    "http://0:PORT/", "http://0x0:PORT/", "http://00000:PORT/", "http://127.0.0.01:PORT/", "http://0x7f.0x0.0x0.0x1:PORT/",
    "http://127.0x0.0.1:PORT/", "http://2852039166/", "http://0xa9fea9fe/", "http://025177524776/",
    "http://0251.0376.0251.0376/", "http://425.510.425.510/", "http://4294967297:PORT/", "http://127.0.0.1.:PORT/",
    "http://127.0.0.1..:PORT/", "http://127.0.0.1.0x7f:PORT/", "http://256.0.0.1:PORT/", "http://1.2.3.4.5:PORT/",
    # other digits and dots, which IDNA turns into these
    "http://１２７.０.０.１:PORT/", "http://127。0。0。1:PORT/", "http://①②⑦.⓪.⓪.①:PORT/", "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:PORT/",
    "http://0x7f｡1:PORT/", "http://１６９．２５４．１６９．２５４/", "http://loc\u00adalhost:PORT/", "http://٣٢.0.0.1:PORT/",
    # percent-encoded
    "http://%31%32%37.0.0.1:PORT/", "http://127%2e0%2e0%2e1:PORT/", "http://loc%61lhost:PORT/", "http://%00127.0.0.1:PORT/",
    # IPv6, its zones and its brackets
    "http://[::1]:PORT/", "http://[0:0:0:0:0:0:0:1]:PORT/", "http://[::]:PORT/", "http://[::ffff:7f00:1]:PORT/",
    "http://[::ffff:127.0.0.1]:PORT/", "http://[0:0:0:0:0:ffff:127.0.0.1]:PORT/", "http://[::1%25lo]:PORT/",
    "http://[::1%lo]:PORT/", "http://[fe80::1%25eth0]/", "http://::1:PORT/", "http://[::1:PORT/", "http://[127.0.0.1]:PORT/",
    "http://[v1.127.0.0.1]:PORT/", "http://[::1].public.example:PORT/", "http://[::127.0.0.1]:PORT/", "http://[]:PORT/",
    # user names, passwords, and what one parser takes for them and another not
    "http://public.example@127.0.0.1:PORT/", "http://public.example:80@127.0.0.1:PORT/", "http://user:pass@public.example/",
    "http://@127.0.0.1:PORT/", "http://127.0.0.1:PORT@public.example/", "http://public.example%40127.0.0.1:PORT/",
    "http://127.0.0.1:PORT#@public.example/", "http://127.0.0.1:PORT?@public.example/", "http://public.example\\@127.0.0.1:PORT/",
    "http://127.0.0.1:PORT\\@public.example/", "http://127.0.0.1:PORT\\.public.example/", "http://a@b@127.0.0.1:PORT/",
    "http://public.example&@127.0.0.1:PORT#@public.example/", "http://127.1.1.1:PORT:80/", "http://127.1.1.1:80\\@127.2.2.2:PORT/",
    # names that are local by their nature
    "http://localhost:PORT/", "http://LOCALHOST:PORT/", "http://localhost.:PORT/", "http://a.localhost:PORT/",
    "http://localhost.localdomain:PORT/", "http://metadata/", "http://metadata.google.internal/computeMetadata/v1/",
    "http://metadata.google.internal./", "http://METADATA.GOOGLE.INTERNAL/", "http://printer.local/", "http://redis:6379/",
    "http://1.0.0.127.in-addr.arpa:PORT/", "http://hidden.onion/", "http://instance-data/latest/meta-data/",
    # names that the DNS gives to private addresses, alone or among others, in the first answer or in a later one
    "http://loopback.example:PORT/", "http://private.example/", "http://metadata.example/latest/", "http://six.example:PORT/",
    "http://mapped.example:PORT/", "http://mixed.example:PORT/", "http://mixed-last.example:PORT/", "http://nat64.example/",
    "http://nothing.example/", "https://loopback.example:PORT/", "http://loopback.example.:PORT/", "http://zoned.example:PORT/",
    "http://xn--loopback-2ya.example:PORT/", "http://wildcard.127.0.0.1.nip.example:PORT/",
    # other ports and schemes
    "http://public.example:22/", "http://public.example:6379/", "http://public.example:0/", "http://public.example:65616/",
    "http://public.example:-1/", "http://public.example:８０/", "file:///etc/passwd", "ftp://127.0.0.1:PORT/", "gopher://127.0.0.1:PORT/_INFO",
    "dict://127.0.0.1:PORT/info", "data:image/png;base64,AAAA", "unix:///run/docker.sock", "http+unix://%2Frun%2Fdocker.sock/info",
    "ldap://127.0.0.1:PORT/", "jar:http://127.0.0.1:PORT/!/", "httpſ://127.0.0.1:PORT/", "blob:http://127.0.0.1:PORT/", "ws://127.0.0.1:PORT/",
    # no URL at all, or one with a second request in it
    "127.0.0.1:PORT", "http:127.0.0.1:PORT", "http:/127.0.0.1:PORT/", "http:///127.0.0.1:PORT/",
    "http://", "http://:PORT/", "http://./", "http://.:PORT/", "http://a..b:PORT/", " http://127.0.0.1:PORT/",
    "http://127.0.0.1:PORT /", "http://127.0.0.1\t:PORT/", "ht\ntp://127.0.0.1:PORT/",
    "http://public.example/\r\nHost: 127.0.0.1",
    "http://public.example/ HTTP/1.1\r\n\r\nDELETE / HTTP/1.1", "http://public.example\x00.127.0.0.1:PORT/",
    "http://public.example/\ud800", "http://-.example/", "http://xn--.127.0.0.1:PORT/", "http://[::1]@public.example:PORT/",
)  # fmt: skip

# What the tests' DNS answers: for each lookup of a name the next answer, then the last one again.
NAMES: dict[str, list[list[str]]] = {
    "loopback.example": [["127.0.0.1"]],
    "private.example": [["10.1.2.3"]],
    "metadata.example": [["169.254.169.254"]],
    "six.example": [["::1"]],
    "mapped.example": [["::ffff:127.0.0.1"]],
    "nat64.example": [["64:ff9b::a9fe:a9fe"]],
    "mixed.example": [["127.0.0.1", "93.184.215.14"]],
    "mixed-last.example": [["93.184.215.14", "2606:4700:4700::1111", "::1"]],
    "zoned.example": [["fe80::1%1"]],
    "nothing.example": [[]],
    "xn--loopback-2ya.example": [["127.0.0.1"]],
    "wildcard.127.0.0.1.nip.example": [["127.0.0.1"]],
    # Only a way around the refusal of a local name would ever ask for these.
    "a.localhost": [["127.0.0.1"]],
    "localhost.localdomain": [["127.0.0.1"]],
    "metadata.google.internal": [["169.254.169.254"]],
    "printer.local": [["192.168.0.9"]],
    "1.0.0.127.in-addr.arpa": [["127.0.0.1"]],
    "hidden.onion": [["127.0.0.1"]],
}
