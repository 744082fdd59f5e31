from ...cloud.libcloud import PARTIES

PARTY = PARTIES["cloudsigma"]
