{{- define "twocloud.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-{{ .Chart.Name }}{{ end -}}
{{- end }}

{{- define "twocloud.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "twocloud.labels" -}}
{{ include "twocloud.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "twocloud.image" -}}
{{- $repository := required "image.repository: name the image that you built from the Containerfile" .Values.image.repository -}}
{{- if .Values.image.digest }}{{ $repository }}@{{ .Values.image.digest }}{{ else }}{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end -}}
{{- end }}

{{- define "twocloud.environment" -}}
- name: TWOCLOUD_KEY
  value: file:/run/secrets/twocloud/key
- name: TWOCLOUD_STORE
  value: {{ .Values.postgresql.url | default "sqlite:////data/twocloud.db" | quote }}
{{- if .Values.postgresql.secret }}
- name: PGPASSWORD
  valueFrom:
    secretKeyRef: {name: {{ .Values.postgresql.secret | quote }}, key: {{ .Values.postgresql.entry | quote }}}
{{- end }}
{{- range $name, $value := .Values.settings }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "twocloud.mounts" -}}
- {name: key, mountPath: /run/secrets/twocloud, readOnly: true}
- {name: data, mountPath: /data}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "twocloud.container" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* where an entry of a Secret is mounted, by what it is: a pod whose mounts are older than the declaration lacks it,
       and never takes one for another. The list of Secret and entry. */ -}}
{{- define "twocloud.mount" -}}
secret-{{ printf "%s/%s" (index . 0) (index . 1) | sha256sum | trunc 16 }}
{{- end }}

{{- /* the declaration that `twocloud apply` reads */ -}}
{{- define "twocloud.fleet" -}}
{{- $tenants := dict }}
{{- range .Values.accounts }}
{{- $mount := include "twocloud.mount" (list .secret (.entry | default "keys.json")) }}
{{- $secret := dict "file" (printf "/run/secrets/%s/secret" $mount) }}
{{- $entry := set (omit . "tenant" "secret" "entry") "credentials" $secret }}
{{- $_ := set $tenants .tenant (append (get $tenants .tenant | default list) $entry) }}
{{- end }}
{{- $users := dict }}
{{- range $name, $user := .Values.users }}
{{- $entry := omit $user "secret" "entry" }}
{{- if $user.secret }}
{{- $mount := include "twocloud.mount" (list $user.secret ($user.entry | default "password")) }}
{{- $_ := set $entry "password" (dict "file" (printf "/run/secrets/%s/secret" $mount)) }}
{{- end }}
{{- $_ := set $users $name $entry }}
{{- end }}
{{- dict "name" (include "twocloud.name" .) "tenants" $tenants "users" $users | toJson }}
{{- end }}

{{- /* mount -> the Secret and its entry, of each that the declaration names */ -}}
{{- define "twocloud.secrets" -}}
{{- $made := dict }}
{{- range .Values.accounts }}
{{- $entry := .entry | default "keys.json" }}
{{- $_ := set $made (include "twocloud.mount" (list .secret $entry)) (dict "secret" .secret "entry" $entry) }}
{{- end }}
{{- range .Values.users }}
{{- if .secret }}
{{- $entry := .entry | default "password" }}
{{- $_ := set $made (include "twocloud.mount" (list .secret $entry)) (dict "secret" .secret "entry" $entry) }}
{{- end }}
{{- end }}
{{- toYaml $made }}
{{- end }}

{{- /* a container that applies the declaration: the list of the root context, its name, and further words */ -}}
{{- define "twocloud.apply" -}}
{{- $root := index . 0 -}}
- name: {{ index . 1 }}
  image: {{ include "twocloud.image" $root | quote }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  args: [apply, --file, /etc/twocloud/fleet.json{{ if $root.Values.apply.prune }}, --prune{{ end }}{{ range index . 2 }}, {{ . | quote }}{{ end }}]
  env: {{- include "twocloud.environment" $root | nindent 4 }}
  securityContext: {{- include "twocloud.container" $root | nindent 4 }}
  resources: {{- toYaml $root.Values.resources | nindent 4 }}
  volumeMounts:
    {{- include "twocloud.mounts" $root | nindent 4 }}
    - {name: fleet, mountPath: /etc/twocloud, readOnly: true}
    {{- range $mount, $_ := include "twocloud.secrets" $root | fromYaml }}
    - {name: {{ $mount }}, mountPath: /run/secrets/{{ $mount }}, readOnly: true}
    {{- end }}
{{- end }}
