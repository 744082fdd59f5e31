"""clouds.yaml, the file in which OpenStack's own programs look for credentials: one cloud of it as our fields.

https://docs.openstack.org/openstacksdk/latest/user/config/configuration.html
A value is text as the file has it: `password: 007` is 007. Fields of `auth` may stand beside it as well. What cannot be
taken over is refused, or named in a remark where the account works without it; secure.yaml and vendors' profiles are
other files, which are not read. JSON is YAML too.
"""

from collections.abc import Mapping
from typing import Any, cast

from ...cloud import api, yaml_text

_OPTION = "--os-cloud"
_METHODS = ("", "password", "v3password", "v3applicationcredential")        # of `auth_type`
_FIELDS = {                                 # ours <- theirs, the first that has a value
    "auth_url": ("auth_url",),
    "username": ("username",),
    "password": ("password",),
    "project_id": ("project_id", "tenant_id"),
    "project_name": ("project_name", "tenant_name"),
    "user_domain": ("user_domain_id", "user_domain_name", "default_domain_id", "default_domain_name", "default_domain"),
    "project_domain": ("project_domain_id", "project_domain_name", "default_domain_id", "default_domain_name",
                       "default_domain"),
    "application_credential_id": ("application_credential_id",),
    "application_credential_secret": ("application_credential_secret",),
    "proxy_user": ("proxy_user",),
    "proxy_password": ("proxy_password",),
}
_OF_USERS = ("username", "password", "project_id", "project_name", "user_domain", "project_domain")
_NO = ("false", "no", "off", "0")


def read(text: str, name: str | None) -> api.OwnFile:
    """The cloud of this name, None: the only one. Raises InvalidParameter, whose text repeats no secret."""
    clouds = _clouds(_parsed(text))
    if name is None and len(clouds) != 1:
        raise api.InvalidParameter(_OPTION, f"The file holds several clouds: {_listed(clouds)}. Choose one with "
                                            f"`{_OPTION}`.")
    if name is not None and name not in clouds:
        raise api.InvalidParameter(_OPTION, f"The file holds no cloud of this name. It holds: {_listed(clouds)}.")
    chosen = name if name is not None else next(iter(clouds))
    cloud = _mapping(clouds[chosen], f"The cloud {_shown(chosen)}")
    auth = {**cloud, **_mapping(cloud.get("auth") or {}, "The part `auth` of this cloud")}
    fields = {ours: setting for ours, theirs in _FIELDS.items()
              if (setting := next((value for key in theirs if (value := _text(auth, key))), ""))}
    _check(cloud, auth, fields)
    if "application_credential_id" in fields:
        fields = {key: value for key, value in fields.items() if key not in _OF_USERS}
    elif "project_id" in fields:
        fields.pop("project_name", None)
        fields.pop("project_domain", None)
    interface = _text(cloud, "interface") or _text(cloud, "endpoint_type")
    if interface:
        fields["interface"] = interface.removesuffix("URL")
    return api.OwnFile(fields, _regions(cloud), _text(cloud, "cacert"), _remarks(cloud))


def _parsed(text: str) -> object:
    try:
        return yaml_text.parse(text)
    except ModuleNotFoundError:
        raise api.InvalidParameter("credentials", "These credentials are not one JSON object. To read a clouds.yaml, "
                                                  "install PyYAML: pip install \"pyyaml~=6.0\"") from None
    except yaml_text.NoYaml as problem:
        raise api.InvalidParameter("credentials", f"These credentials are neither one JSON object nor YAML{problem}."
                                   ) from None


def _clouds(node: object) -> dict[str, object]:
    there = cast(dict[object, object], node) if isinstance(node, dict) else {}
    clouds = there.get("clouds")
    if isinstance(clouds, dict) and clouds:
        return {str(name): cloud for name, cloud in cast(dict[object, object], clouds).items()}
    if "public-clouds" in there:
        raise api.InvalidParameter("credentials", "This is clouds-public.yaml, which holds profiles and no "
                                                  "credentials. Give clouds.yaml.")
    raise api.InvalidParameter("credentials", "These credentials are neither one JSON object nor a clouds.yaml: there "
                                              "is no cloud below `clouds`.")


def _check(cloud: Mapping[str, object], auth: Mapping[str, object], fields: Mapping[str, str]) -> None:
    """Raises InvalidParameter for what is missing, and for what would be another login than the one that is meant."""
    if _text(cloud, "auth_type").lower() not in _METHODS:
        problem = "It logs in by another auth_type than password or v3applicationcredential, which are supported."
    elif "auth_url" not in fields and (_text(cloud, "profile") or _text(cloud, "cloud")):
        problem = "Its auth_url is in the profile of a vendor, which is another file. Write auth_url below auth."
    elif "auth_url" not in fields:
        problem = "It has no auth_url. If this is secure.yaml, give clouds.yaml, with the secret in it."
    elif _text(cloud, "cert") or _text(cloud, "key"):
        problem = "It uses a client certificate (cert, key), which is not supported."
    elif _text(auth, "application_credential_name") and "application_credential_id" not in fields:
        problem = "It has an application credential by name. Give application_credential_id in its place."
    elif "application_credential_id" in fields and "application_credential_secret" not in fields:
        problem = "It has no application_credential_secret. If that is in secure.yaml, write it into this file."
    elif "application_credential_id" in fields:
        return
    elif "username" not in fields and _text(auth, "user_id"):
        problem = "It has its user by id. Give username and user_domain_name in place of user_id."
    elif "username" not in fields:
        problem = "It has neither a username nor an application_credential_id."
    elif "password" not in fields:
        problem = "It has no password. If that is in secure.yaml, write it into this file."
    else:
        return
    raise api.InvalidParameter("credentials", f"The cloud in this clouds.yaml cannot be used. {problem}")


def _regions(cloud: Mapping[str, object]) -> tuple[str, ...]:
    if name := _text(cloud, "region_name"):
        return name,
    regions = cloud.get("regions")
    rows = cast(list[Any], regions) if isinstance(regions, list) else []
    names = [cast(Mapping[str, Any], each).get("name") if isinstance(each, dict) else each for each in rows]
    return tuple(name for name in names if isinstance(name, str) and name)


def _remarks(cloud: Mapping[str, object]) -> list[str]:
    remarks: list[str] = []
    if _text(cloud, "verify").lower() in _NO or _text(cloud, "insecure").lower() not in ("", *_NO):
        remarks.append("The file switches the check of certificates off; twocloud always checks them. For an "
                       "authority of your own, pass `--ca-file`.")
    overrides = sorted(key for key in cloud if key.endswith("_endpoint_override"))
    if overrides:
        remarks.append("Addresses come from the catalogue, not from the file's *_endpoint_override. To call another "
                       "host, pass `--endpoint`.")
    return remarks


def _mapping(node: object, what: str) -> Mapping[str, object]:
    if not isinstance(node, dict):
        raise api.InvalidParameter("credentials", f"{what} must have fields.")
    return {str(key): value for key, value in cast(dict[object, object], node).items()}


def _text(fields: Mapping[str, object], key: str) -> str:
    value = fields.get(key)
    return value if isinstance(value, str) else ""


def _listed(clouds: Mapping[str, object]) -> str:
    return ", ".join(_shown(name) for name in [*clouds][:20]) + (", …" if len(clouds) > 20 else "")


def _shown(name: str) -> str:
    return name if name.isprintable() and len(name) <= 64 else "?"
