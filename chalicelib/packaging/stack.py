"""The stack on AWS: its files in S3, a change set that people can review, and the execution of that change set.

A change set shows what would change and changes nothing. https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-cfn-updating-stacks-changesets.html
"""

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)

from ..errors import TwocloudError
from ..storage import amazon

CAPABILITIES = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]     # it makes roles, and is written in SAM's terms
_PAUSE = 2.0                                # seconds between two looks at what AWS does
_SECONDS = 3600                             # that a stack may take
_DEAD = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED")     # from which a stack can only be deleted
_NOTHING = ("didn't contain changes", "No updates are to be performed")
_CONSOLES = {"aws-cn": "console.amazonaws.cn", "aws-us-gov": "console.amazonaws-us-gov.com"}


class DeployError(TwocloudError):
    """AWS failed; the text says what and, where we know it, what to do."""


class Refused(TwocloudError):
    """AWS, or the account's settings, do not allow it."""

    status = 403


class Unreachable(TwocloudError):
    """No answer from AWS."""


@dataclass(frozen=True, slots=True)
class Change:
    """Of one resource. `action`: Add, Modify, Remove, Import, Dynamic. `replacement`: True, False, Conditional, ""."""

    action: str
    name: str
    type: str
    replacement: str = ""

    @property
    def loses(self) -> bool:
        """Whether what is there now may go."""
        return self.action == "Remove" or self.replacement in ("True", "Conditional")


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change set that nobody has executed. `stack`: the stack's ARN. `creates`: there is no such stack yet."""

    arn: str
    stack: str
    name: str
    creates: bool
    changes: tuple[Change, ...]


@contextmanager
def _explained(what: str) -> Generator[None]:
    """Raises DeployError for what AWS says, or for what keeps us from asking it."""
    try:
        yield
    except ClientError as refused:
        error: dict[str, str] = refused.response.get("Error", {})       # type: ignore[assignment]
        raise Refused(f"{what}: {error.get('Code', '')}: {error.get('Message', '')}") from None
    except (NoRegionError, NoCredentialsError, PartialCredentialsError, ProfileNotFound) as problem:
        raise Refused(f"{what}: {problem} Set AWS_PROFILE, or AWS_DEFAULT_REGION and credentials.") from None
    except BotoCoreError as problem:
        raise Unreachable(f"{what}: {problem}") from None


class Account:
    """The AWS account and region that AWS's own settings name. `sleep` and `clock` are for tests."""

    def __init__(self, clock: Callable[[], float] = time.monotonic,
                 sleep: Callable[[float], None] = time.sleep) -> None:
        self._clock, self._sleep = clock, sleep

    @cached_property
    def _s3(self) -> Any:
        return self._client("s3")

    @cached_property
    def _formation(self) -> Any:
        return self._client("cloudformation")

    def _client(self, service: str) -> Any:
        with _explained("AWS cannot be called"):
            return amazon.client(service, attempts=5, seconds=60)

    @cached_property
    def region(self) -> str:
        return str(self._s3.meta.region_name)

    @cached_property
    def number(self) -> str:
        with _explained("The account is not known"):
            return str(self._client("sts").get_caller_identity()["Account"])

    @property
    def _console(self) -> str:
        domain = _CONSOLES.get(str(self._s3.meta.partition), "console.aws.amazon.com")
        return f"https://{self.region}.{domain}/cloudformation/home?region={self.region}"

    # ---------------------------------------------------------------- the files

    def upload(self, out: Path, bucket: str | None) -> str:
        """Store the zip and the template that names it; the template's URL. `bucket`: None is our own, made if it is
        not there. Both are named by what is in them, so those of earlier releases stay for a rollback."""
        name = self._bucket(bucket)
        code = (out / "deployment.zip").read_bytes()
        template = json.loads((out / "template.json").read_text())
        zipped = f"twocloud/{hashlib.sha256(code).hexdigest()}.zip"
        self._put(name, zipped, code)
        text = json.dumps(with_code(template, name, zipped), separators=(",", ":")).encode()
        readable = f"twocloud/{hashlib.sha256(text).hexdigest()}.json"
        self._put(name, readable, text)
        return f"{self._s3.meta.endpoint_url}/{name}/{readable}"

    def _bucket(self, named: str | None) -> str:
        name = named or f"twocloud-{self.number}-{self.region}"
        try:
            described = self._s3.head_bucket(Bucket=name, ExpectedBucketOwner=self.number)
        except ClientError as refused:
            status = refused.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if status == 403:               # of another account, or no right
                raise Refused(f"The bucket {name} is not this account's ({self.number}), or you may not use it. "
                              "Name one with --bucket.") from None
            if status != 404 or named:
                raise Refused(f"The bucket {name} cannot be used (HTTP {status}). Create it in {self.region}, or omit "
                              "--bucket.") from None
            with _explained(f"The bucket {name} was not created"):
                where = {} if self.region == "us-east-1" else {
                    "CreateBucketConfiguration": {"LocationConstraint": self.region}}
                self._s3.create_bucket(Bucket=name, **where)
        except BotoCoreError as problem:
            raise Unreachable(f"The bucket {name} cannot be used: {problem}") from None
        else:
            if described.get("BucketRegion", self.region) != self.region:
                raise Refused(f"The bucket {name} is in {described['BucketRegion']}; functions in {self.region} need "
                              f"their code in {self.region}.")
        return name

    def _put(self, bucket: str, key: str, content: bytes) -> None:
        with _explained(f"{key} was not stored in the bucket {bucket}"):
            self._s3.put_object(Bucket=bucket, Key=key, Body=content, ExpectedBucketOwner=self.number)

    def launch_link(self, url: str, stack: str, parameters: Mapping[str, str]) -> str:
        """The console's page that creates the stack, filled in."""
        fields = {"templateURL": url, "stackName": stack, **{f"param_{name}": it for name, it in parameters.items()}}
        return f"{self._console}#/stacks/create/review?{urlencode(fields, quote_via=quote)}"

    # ---------------------------------------------------------------- the change set

    def propose(self, stack: str, url: str, parameters: Mapping[str, str], role: str | None) -> Proposal | None:
        """A new change set; None if nothing would change. Parameters that are not named keep their values. `role`: ARN
        of the role with which CloudFormation works; None: the caller's rights."""
        known = self._known_parameters(stack)
        name = f"twocloud-{uuid.uuid4().hex[:12]}"
        creates = known is None
        with _explained("No change set was made"):
            template = self._formation.get_template_summary(TemplateURL=url)
            declared = {it["ParameterKey"] for it in template.get("Parameters", ())}
            if unknown := sorted(parameters.keys() - declared):
                raise Refused(f"There is no parameter {', '.join(unknown)}. Parameters: "
                              f"{', '.join(sorted(declared))}.")
            kept = (known or set()) & declared - parameters.keys()
            made = self._formation.create_change_set(
                StackName=stack, ChangeSetName=name, ChangeSetType="CREATE" if creates else "UPDATE", TemplateURL=url,
                Capabilities=CAPABILITIES, **({"RoleARN": role} if role else {}),
                Parameters=[*({"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()),
                            *({"ParameterKey": key, "UsePreviousValue": True} for key in sorted(kept))])
            described = self._until(lambda: self._change_set(stack, name),
                                lambda it: it["Status"] in ("CREATE_COMPLETE", "FAILED"))
            if described["Status"] == "FAILED":
                self._formation.delete_change_set(StackName=stack, ChangeSetName=name)
                reason = str(described.get("StatusReason", ""))
                if any(text in reason for text in _NOTHING):
                    return None
                raise DeployError(f"No change set was made: {reason}")
        return Proposal(str(made["Id"]), str(made["StackId"]), name, creates, _changes(described))

    def _known_parameters(self, stack: str) -> set[str] | None:
        """Of the stack that is there; None if there is none, or only one that awaits its first change set."""
        described = self._stack(stack)
        if described is None or described["StackStatus"] == "REVIEW_IN_PROGRESS":
            return None
        if (status := described["StackStatus"]) in _DEAD:
            raise Refused(f"The stack {stack} is {status}, so it cannot be changed. Delete it in CloudFormation, then "
                          "deploy again.")
        return {it["ParameterKey"] for it in described.get("Parameters", ())}

    def _stack(self, stack: str) -> dict[str, Any] | None:
        with _explained(f"The stack {stack} cannot be described"):
            try:
                return self._formation.describe_stacks(StackName=stack)["Stacks"][0]
            except ClientError as refused:
                if "does not exist" not in str(refused):
                    raise
        return None

    def _change_set(self, stack: str, name: str) -> dict[str, Any]:
        """With all of its changes."""
        described: dict[str, Any] = self._formation.describe_change_set(StackName=stack, ChangeSetName=name)
        while token := described.pop("NextToken", None):
            more = self._formation.describe_change_set(StackName=stack, ChangeSetName=name, NextToken=token)
            described = {**more, "Changes": [*described["Changes"], *more["Changes"]]}
        return described

    def page_of(self, proposal: Proposal) -> str:
        """The console's page that shows the change set."""
        fields = urlencode({"stackId": proposal.stack, "changeSetId": proposal.arn})
        return f"{self._console}#/stacks/changesets/changes?{fields}"

    # ---------------------------------------------------------------- its execution

    def apply(self, stack: str, change_set: str) -> dict[str, str]:
        """Execute the change set and wait for its end; the stack's outputs."""
        with _explained(f"The change set {change_set} was not executed"):
            self._formation.execute_change_set(StackName=stack, ChangeSetName=change_set)
            # until it is under way, the stack may still show how its last change ended
            self._until(lambda: self._execution(stack, change_set),
                        lambda it: it["ExecutionStatus"] not in ("AVAILABLE", "EXECUTE_IN_PROGRESS"))
        made = self._until(lambda: self._stack(stack) or {"StackStatus": "DELETE_COMPLETE"},
                           lambda it: not it["StackStatus"].endswith("IN_PROGRESS"))
        if made["StackStatus"] not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            raise DeployError("\n".join([f"The stack {stack} is {made['StackStatus']}.", *self._failures(stack)]))
        return {it["OutputKey"]: it["OutputValue"] for it in made.get("Outputs", ())}

    def _execution(self, stack: str, change_set: str) -> dict[str, Any]:
        try:
            return self._formation.describe_change_set(StackName=stack, ChangeSetName=change_set)
        except self._formation.exceptions.ChangeSetNotFoundException:       # CloudFormation removes those that are done
            return {"ExecutionStatus": "EXECUTE_COMPLETE"}

    def _failures(self, stack: str) -> list[str]:
        with _explained(f"The events of {stack} cannot be read"):
            events = self._formation.describe_stack_events(StackName=stack)["StackEvents"]
        return [f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', event['ResourceStatus'])}"
                for event in reversed(events) if event["ResourceStatus"].endswith("FAILED")][:10]

    def _until(self, look: Callable[[], dict[str, Any]], done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        ends = self._clock() + _SECONDS
        while not done(described := look()):
            if self._clock() > ends:
                raise DeployError("AWS has not finished after an hour. Look into CloudFormation's console.")
            self._sleep(_PAUSE)
        return described


def with_code(template: dict[str, Any], bucket: str, key: str) -> dict[str, Any]:
    """The template whose functions take their code from there."""
    resources = {name: {**it, "Properties": {**it["Properties"], "CodeUri": {"Bucket": bucket, "Key": key}}}
                 if it["Type"] == "AWS::Serverless::Function" else it for name, it in template["Resources"].items()}
    return {**template, "Resources": resources}


def _changes(described: Mapping[str, Any]) -> tuple[Change, ...]:
    changed = [it["ResourceChange"] for it in described.get("Changes", ()) if it.get("Type") == "Resource"]
    return tuple(sorted((Change(it["Action"], it["LogicalResourceId"], it["ResourceType"], it.get("Replacement", ""))
                         for it in changed), key=lambda it: (it.action, it.type, it.name)))
