from ...cloud.libcloud import PARTIES

PARTY = PARTIES["brightbox"]
