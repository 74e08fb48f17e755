"""Messages in the shape of the Graph API, and what WhatsApp would refuse about them. Limits: reference of the Cloud API, "Sending"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from loquat_events.conversations import Address, Outgoing
from pydantic import BaseModel, Field, ValidationError

_TEXT: Final = 4096
_BODY: Final = 1024
_LIST_BODY: Final = 4096
_CAPTION: Final = 1024
_MOST_ROWS: Final = 10
_UNCAPTIONED: Final = {"audio", "sticker"}


class Unsendable(Exception):
    """The message cannot be sent as it is. The text names the field and the limit."""


class _Button(BaseModel):
    id: str = Field(min_length=1, max_length=256)
    title: str = Field(min_length=1, max_length=20)


class _Buttons(BaseModel):
    buttons: list[_Button] = Field(min_length=1, max_length=3)


class _Row(BaseModel):
    id: str = Field(min_length=1, max_length=200)
    title: str = Field(min_length=1, max_length=24)
    description: str | None = Field(default=None, max_length=72)


class _Section(BaseModel):
    title: str | None = Field(default=None, max_length=24)
    rows: list[_Row] = Field(min_length=1, max_length=_MOST_ROWS)


class _List(BaseModel):
    button: str = Field(min_length=1, max_length=20)
    sections: list[_Section] = Field(min_length=1, max_length=10)


class _File(BaseModel):
    """By its address, or by the id that Meta gave it when it was uploaded."""

    link: str | None = Field(default=None, min_length=1, max_length=2000)
    id: str | None = Field(default=None, min_length=1, max_length=200)
    filename: str | None = Field(default=None, min_length=1, max_length=240)


class _Flow(BaseModel):
    flow_id: str | None = Field(default=None, min_length=1, max_length=200)
    flow_name: str | None = Field(default=None, min_length=1, max_length=200)
    flow_cta: str = Field(min_length=1, max_length=30)
    flow_token: str = Field(min_length=1, max_length=200)
    screen: str | None = Field(default=None, min_length=1, max_length=200)
    data: dict[str, Any] | None = Field(default=None, min_length=1)


def recipient(addresses: Sequence[Address]) -> tuple[str, bool]:
    """Whom to write to, and whether that is a business-scoped user id: a phone number where there is one.

    Raises:
        Unsendable: no address that WhatsApp takes.
    """
    for kinds in (("wa_id", "phone"), ("user_id",)):
        for address in addresses:
            if address.kind in kinds:
                return address.value, address.kind == "user_id" or not address.value.lstrip("+").isdigit()
    raise Unsendable("the contact has no phone number and no WhatsApp id")


def request(message: Outgoing, to: str, *, is_user_id: bool, message_id: UUID) -> dict[str, Any]:
    """The body for `POST /{phone_number_id}/messages`. The message's id comes back with every status: the only key that Meta offers.

    Raises:
        Unsendable: WhatsApp would refuse it.
    """
    try:
        kind, content = _content(message)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Unsendable(f"{message.type}.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    addressed = {"recipient": to} if is_user_id else {"to": "+" + to.lstrip("+")}
    return {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        **addressed,
        "type": kind,
        kind: content,
        "biz_opaque_callback_data": str(message_id),
    }


def _content(message: Outgoing) -> tuple[str, dict[str, Any]]:
    content = message.content or {}
    match message.type:
        case "text":
            return "text", {"body": _within("text", message.text, _TEXT)}
        case "buttons":
            buttons = _Buttons.model_validate(content).buttons
            action = {"buttons": [{"type": "reply", "reply": b.model_dump()} for b in buttons]}
            return "interactive", {"type": "button", "body": {"text": _within("text", message.text, _BODY)}, "action": action}
        case "list":
            chosen = _List.model_validate(content)
            if (rows := sum(len(s.rows) for s in chosen.sections)) > _MOST_ROWS:
                raise Unsendable(f"a list has {rows} rows; {_MOST_ROWS} are the limit")
            return "interactive", {
                "type": "list",
                "body": {"text": _within("text", message.text, _LIST_BODY)},
                "action": chosen.model_dump(exclude_none=True),
            }
        case "flow":
            return "interactive", _form(_Flow.model_validate(content), _within("text", message.text, _BODY))
        case kind:
            return kind, _file(kind, _File.model_validate(content), message.text)


def _form(flow: _Flow, said: str) -> dict[str, Any]:
    if (flow.flow_id is None) == (flow.flow_name is None):
        raise Unsendable("a flow needs flow_id or flow_name, one of both")
    if flow.data is not None and flow.screen is None:
        raise Unsendable("a flow's data is for a screen, and none is named")
    parameters: dict[str, Any] = {"flow_message_version": "3", **flow.model_dump(exclude_none=True, exclude={"screen", "data"})}
    if flow.screen is not None:  # without one it begins where its own JSON says
        payload = {"screen": flow.screen, **({"data": flow.data} if flow.data is not None else {})}
        parameters |= {"flow_action": "navigate", "flow_action_payload": payload}
    return {"type": "flow", "body": {"text": said}, "action": {"name": "flow", "parameters": parameters}}


def _file(kind: str, file: _File, caption: str | None) -> dict[str, Any]:
    if (file.link is None) == (file.id is None):
        raise Unsendable(f"{kind} needs a link or an id, one of both")
    if caption and kind in _UNCAPTIONED:
        raise Unsendable(f"{kind} has no caption: send a text besides")
    if file.filename is not None and kind != "document":
        raise Unsendable(f"{kind}.filename: only a document has a name")
    return file.model_dump(exclude_none=True) | ({"caption": _within("caption", caption, _CAPTION)} if caption else {})


def _within(field: str, value: str | None, limit: int) -> str:
    if not value or not value.strip():
        raise Unsendable(f"{field} is empty")
    if len(value) > limit:
        raise Unsendable(f"{field} has {len(value)} characters; {limit} are the limit")
    return value
